// node claim.mjs FILE NAME: runs one exported function of FILE. It fails by throwing.
const [file, name] = process.argv.slice(2);
const claims = await import(`./${file}`);
await claims[name]();
