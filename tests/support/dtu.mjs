// Starts the server of dtu-github-actions, which has version 1 of the cache service. Prints its URL. Ends when
// standard input is closed.
//   node dtu.mjs PEERS DIRECTORY
import { createRequire } from 'node:module'
import { Server } from 'node:net'
import { pathToFileURL } from 'node:url'

const [peers, directory] = process.argv.slice(2)
// Directory for its files and its log, which by default are below the directory for temporary files.
process.env.DTU_CACHE_DIR = process.env.DTU_LOGS_DIR = directory
// By default, it listens on all interfaces.
const { listen } = Server.prototype
Server.prototype.listen = function (port, _, ready) {
    return listen.call(this, port, '127.0.0.1', ready)
}
// It redirects the console to its log.
const print = process.stdout.write.bind(process.stdout)
const require = createRequire(`${peers}/package.json`)
const { startEphemeralDtu } = await import(pathToFileURL(require.resolve('dtu-github-actions/ephemeral')))
print(`${(await startEphemeralDtu(directory)).url}\n`)
process.stdin.on('end', () => process.exit()).resume()
