"""Moving bytes: links, streams, fan-out to attachments, resume.  Knows nothing of HTTP."""
