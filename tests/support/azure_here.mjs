// For `node --import`: every host of Azure is this machine.
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'

const lookup = dns.lookup
dns.lookup = (host, ...rest) => lookup(host.endsWith('.core.windows.net') ? '127.0.0.1' : host, ...rest)
syncBuiltinESMExports()
