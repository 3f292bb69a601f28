// @ts-check
/** The parts of index.html, found once and typed. */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function part(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`);
  return element;
}

/** @param {string} id */
export const button = (id) => part(id, HTMLButtonElement);

/** @param {string} id */
export const box = (id) => part(id, HTMLElement);

/**
 * @param {string} text
 * @param {() => void} act
 * @param {string} [className]
 */
export function newButton(text, act, className = "") {
  const made = document.createElement("button");
  made.type = "button";
  made.className = className;
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}
