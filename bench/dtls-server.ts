/** The server that `npm run bench -- dtls` measures: node dtls-server.js CERT KEY CA. Prints `ready PORT`. */
import { readFileSync } from 'node:fs'
import { listen } from '../transport/dtls/endpoint.ts'

const [cert, key, ca] = process.argv.slice(2).map((file) => readFileSync(file))
const endpoint = listen(
  (association) => {
    association.onmessage = (datagram) => association.send(datagram)
  },
  {
    port: 0,
    host: '127.0.0.1',
    cert,
    key,
    ca,
    clientAuth: 'require',
    maxAssociations: 4096,
    maxAssociationsPerHost: 4096,
  },
)
const { port } = await endpoint.listening
console.log(`ready ${port}`)
process.stdin.resume().on('end', () => process.exit())
