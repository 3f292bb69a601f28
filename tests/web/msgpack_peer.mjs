/** Reads lines of hex on standard input, each a msgpack value; writes each, decoded and encoded. */

import { decode, encode } from "../../web/static/trunk/msgpack.js";

let text = "";
for await (const chunk of process.stdin) text += chunk;
for (const line of text.split("\n").filter(Boolean)) {
  const value = decode(Uint8Array.from(Buffer.from(line, "hex")));
  console.log(Buffer.from(encode(value)).toString("hex"));
}
