// For suites whose tests connect to port 6379, come what may: such connections go to SUITE_PORT. Loaded with --require.
const net = require("net");
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...args) {
  const first = args[0];
  const to = Array.isArray(first) ? first[0] : first;
  if (to && typeof to === "object" && Number(to.port) === 6379) {
    const moved = { ...to, port: Number(process.env.SUITE_PORT) };
    if (Array.isArray(first)) first[0] = moved;
    else args[0] = moved;
  } else if (Number(first) === 6379) {
    args[0] = Number(process.env.SUITE_PORT);
  }
  return connect.apply(this, args);
};
