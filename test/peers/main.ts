/**
 * Installs or finds every foreign program and says what is there, a JSON line each: `npm run -s peers`.
 * The suites and benches find them again by themselves.
 */
import { COAP_PEER_NAMES, coapClient, findCoapPeer, report } from './coap-peers.ts'
import { COSE_PEERS, type CosePeerName, findCosePeer } from './cose-peers.ts'
import { DTLS_PEER_NAMES, findDtlsPeer } from './dtls-peers.ts'

const reports = [
  ...COAP_PEER_NAMES.map((name) => report(name, () => findCoapPeer(name))),
  report('coap-client', async () => ({ version: 'Debian', path: await coapClient() })),
  ...(Object.keys(COSE_PEERS) as CosePeerName[]).map((name) =>
    report(name, async () => ({ version: COSE_PEERS[name].version, path: (await findCosePeer(name))[0]! })),
  ),
  ...DTLS_PEER_NAMES.map((name) => report(name, () => findDtlsPeer(name))),
]
for (const each of reports) process.stdout.write(`${JSON.stringify(await each)}\n`)
