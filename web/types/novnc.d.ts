// Just enough for `// @ts-check`, as in xterm.d.ts.
declare module "@novnc/novnc" {
  export default class RFB extends EventTarget {
    constructor(place: HTMLElement, channel: unknown, options?: Record<string, unknown>);
    addEventListener(name: string, listener: (event: CustomEvent) => void): void;
    [member: string]: any;
  }
}
declare module "@novnc/keysymdef" {
  const keysyms: { lookup(codePoint: number | undefined): number };
  export default keysyms;
}
