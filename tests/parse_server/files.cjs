// Keeps the files of a Parse Server in memory, in place of the adapter that needs MongoDB, for server.mjs and
// server_of_version.cjs. In the JavaScript that Node.js 12 understands.

const files = new Map();
const filesAdapter = {
  createFile: async (name, data) => {
    files.set(name, data);
  },
  deleteFile: async name => {
    if (!files.delete(name)) {
      throw new Error(`there is no file ${name}`);
    }
  },
  getFileData: async name => {
    if (!files.has(name)) {
      throw new Error(`there is no file ${name}`);
    }
    return files.get(name);
  },
  getFileLocation: (config, name) => `${config.mount}/files/${config.applicationId}/${encodeURIComponent(name)}`,
};

module.exports = { filesAdapter };
