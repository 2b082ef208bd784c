// Accepts TLS connections and forwards them to a port of this machine. Prints its own port. Ends when standard
// input is closed.
//   node tls_proxy.mjs PORT CERTIFICATE KEY
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { createServer } from 'node:tls'

const [port, cert, key] = process.argv.slice(2)
const options = { cert: readFileSync(cert), key: readFileSync(key) }
const server = createServer(options, (outside) => {
    const inside = connect(Number(port), '127.0.0.1')
    outside.pipe(inside).pipe(outside)
    for (const [one, other] of [[outside, inside], [inside, outside]]) {
        one.on('error', () => other.destroy())
    }
})
server.on('tlsClientError', () => {})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.on('end', () => process.exit(0)).resume()
