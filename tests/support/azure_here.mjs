// For `node --import`: resolves all hosts of Azure to this machine, or to AZURE_ADDRESS.
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'

const here = process.env.AZURE_ADDRESS ?? '127.0.0.1'
const lookup = dns.lookup
dns.lookup = (host, ...rest) => lookup(host.endsWith('.core.windows.net') ? here : host, ...rest)
syncBuiltinESMExports()
