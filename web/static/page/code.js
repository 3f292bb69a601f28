// @ts-check
/** The one-use code in the fragment of a link, which signs a browser in. */

/**
 * Return the code in a link, or null.
 * @param {string} text
 */
export function codeIn(text) {
  const found = /#(?:.*&)?code=([^&\s]+)/.exec(text);
  return found ? decodeURIComponent(found[1]) : null;
}

/** Take the code out of the address, before anything can leak it. */
export function takeCode() {
  const code = codeIn(location.hash);
  if (location.hash) history.replaceState(null, "", location.pathname);
  return code;
}
