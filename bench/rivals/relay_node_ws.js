// A WebSocket to TCP relay on ws. Arguments: PORT TARGET_PORT.
const net = require("node:net");
const { WebSocketServer } = require("ws");

const [port, target] = process.argv.slice(2).map(Number);
const server = new WebSocketServer({
  port, host: "127.0.0.1", backlog: 1024, perMessageDeflate: false, maxPayload: 1 << 26,
});
server.on("connection", (ws) => {
  const tcp = net.connect(target, "127.0.0.1");
  tcp.setNoDelay(true);
  tcp.on("data", (data) => {
    if (ws.readyState !== ws.OPEN) return;
    ws.send(data, () => tcp.resume());
    if (ws.bufferedAmount > 262144) tcp.pause();
  });
  tcp.on("drain", () => ws.resume());
  tcp.on("close", () => ws.close());
  tcp.on("error", () => ws.terminate());
  ws.on("message", (data) => { if (!tcp.write(data)) ws.pause(); });
  ws.on("close", () => tcp.end());
  ws.on("error", () => tcp.destroy());
});
