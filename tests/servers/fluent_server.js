// The Fluent project's own receiver in JavaScript: `node fluent_server.js FOLDER OPTIONS` with the package in
// FOLDER and its options as JSON. Prints a line of JSON for each record.
const { createRequire } = require("module");
const { FluentServer } = createRequire(process.argv[2] + "/")("@fluent-org/logger");

const server = new FluentServer(JSON.parse(process.argv[3]));
server.on("entry", (tag, time, record) => {
  console.log(JSON.stringify({ tag, seconds: time.epoch, nanoseconds: time.nano, record }));
});
server.listen();
