// Just enough for `// @ts-check`: the real declarations come with the packages, which the page ships
// without their typings.
declare module "@xterm/xterm" {
  export class Terminal {
    constructor(options?: Record<string, unknown>);
    [member: string]: any;
  }
}
declare module "@xterm/addon-fit" {
  export class FitAddon {
    [member: string]: any;
  }
}
declare module "@xterm/addon-unicode11" {
  export class Unicode11Addon {}
}
declare module "@xterm/addon-web-links" {
  export class WebLinksAddon {
    constructor(handler?: (event: MouseEvent, uri: string) => void);
  }
}
declare module "@xterm/addon-search" {
  export class SearchAddon {
    [member: string]: any;
  }
}
interface Window {
  /** What tests and curious people reach for; see app.js. */
  trunkline?: Record<string, unknown>;
}
