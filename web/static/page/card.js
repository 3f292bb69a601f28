// @ts-check
/** The card over the terminal when it cannot be used, and the line that says something in passing. */

import { box, newButton, part } from "./elements.js";

const TOAST_TIME = 6_000;

/** @typedef {{text: string, act: () => void, primary?: boolean}} Action */

export class Card {
  constructor() {
    this._cover = box("cover");
    this._card = box("card");
    this._title = box("card-title");
    this._text = box("card-text");
    this._actions = box("card-actions");
    this._login = part("login", HTMLFormElement);
    this._loginText = part("login-text", HTMLInputElement);
    this._problem = box("login-problem");
    this._toast = box("toast");
    this._toastTimer = 0;
    /** @type {(text: string) => Promise<void>} */
    this._onlogin = async () => {};
    this._login.addEventListener("submit", (event) => {
      event.preventDefault();
      this._submit();
    });
  }

  get shown() {
    return !this._cover.hidden;
  }

  /**
   * @param {string} title
   * @param {string} text
   * @param {Action[]} actions
   */
  show(title, text, actions) {
    this._title.textContent = title;
    this._text.textContent = text;
    this._login.hidden = true;
    this._actions.replaceChildren(
      ...actions.map(({ text, act, primary }) => newButton(text, act, primary ? "primary" : "")),
    );
    this._cover.hidden = false;
    // Not a button: somebody who was typing must not press it with the next Enter.
    this._card.focus();
  }

  /**
   * Ask for a link or a token.
   * @param {string} text
   * @param {(text: string) => Promise<void>} onlogin throws what is wrong with it
   */
  askForLogin(text, onlogin) {
    this.show("Sign in", text, []);
    this._onlogin = onlogin;
    this._problem.textContent = "";
    this._login.hidden = false;
    this._loginText.value = "";
    this._loginText.focus();
  }

  hide() {
    this._cover.hidden = true;
  }

  /** Say something that needs no answer. @param {string} text */
  toast(text) {
    clearTimeout(this._toastTimer);
    this._toast.textContent = text;
    this._toast.hidden = false;
    this._toastTimer = setTimeout(() => (this._toast.hidden = true), TOAST_TIME);
  }

  async _submit() {
    this._problem.textContent = "";
    try {
      await this._onlogin(this._loginText.value.trim());
    } catch (error) {
      this._problem.textContent = error instanceof Error ? error.message : String(error);
    }
  }
}
