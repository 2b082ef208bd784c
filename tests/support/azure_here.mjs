// For `node --import`: every host of Azure is this machine, or whichever AZURE_ADDRESS says.
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'

const here = process.env.AZURE_ADDRESS ?? '127.0.0.1'
const lookup = dns.lookup
dns.lookup = (host, ...rest) => lookup(host.endsWith('.core.windows.net') ? here : host, ...rest)
syncBuiltinESMExports()
