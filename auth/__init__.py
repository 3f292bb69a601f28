"""Who may do what: principals, credentials, keys, tickets and the policy."""
