const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = () => {
  const command = workspace.getConfiguration("gdsl").get("command");
  client = new LanguageClient("gdsl", { command, args: ["lsp"] }, { documentSelector: [{ language: "gdsl" }] });
  return client.start();
};

exports.deactivate = () => client && client.stop();
