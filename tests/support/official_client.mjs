// The official client of the cache service: saves or restores one directory.
//   node official_client.mjs PEERS save|restore KEY DIRECTORY
// Prints the ID of the saved entry, or the key that matched.
import { pathToFileURL } from 'node:url'

const [peers, verb, key, directory] = process.argv.slice(2)
const cache = await import(pathToFileURL(`${peers}/node_modules/@actions/cache/lib/cache.js`))
const done = verb === 'save'
    ? await cache.saveCache([directory], key)
    : await cache.restoreCache([directory], key)
console.log(`result: ${done}`)
