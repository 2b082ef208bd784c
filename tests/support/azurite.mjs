// Starts Azurite's blob service and creates a container. Prints the port. Ends when standard input is closed.
//   node azurite.mjs PEERS [ADDRESS [DIRECTORY]]
// Blobs are kept in memory, or in DIRECTORY.
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { createServer, connect } from 'node:net'
import { pathToFileURL } from 'node:url'

const [peers, host = '127.0.0.1', directory] = process.argv.slice(2)
const require = createRequire(`${peers}/package.json`)
const free = await new Promise((resolve) => {
    const server = createServer().listen(0, host, () => {
        const { port } = server.address()
        server.close(() => resolve(port))
    })
})
const azurite = spawn(process.execPath, [
    `${peers}/node_modules/azurite/dist/src/blob/main.js`, '--silent', '--disableTelemetry',
    ...directory ? ['--location', directory] : ['--inMemoryPersistence'], '--blobHost', host, '--blobPort', String(free),
], { stdio: ['ignore', 'ignore', 'inherit'] })
azurite.on('exit', (code) => process.exit(code ?? 1))
process.stdin.on('end', () => azurite.kill('SIGKILL')).resume()
for (;;) {
    const up = await new Promise((resolve) => {
        const socket = connect(free, host)
        socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
        socket.on('close', () => {}).end()
    })
    if (up) break
    await new Promise((resolve) => setTimeout(resolve, 50))
}
const storage = await import(pathToFileURL(require.resolve('@azure/storage-blob')))
const key = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='
const credential = new storage.StorageSharedKeyCredential('devstoreaccount1', key)
const url = `http://${host}:${free}/devstoreaccount1`
await new storage.BlobServiceClient(url, credential).getContainerClient('actions-cache').create()
console.log(free)
