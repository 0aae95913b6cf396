/** The third-party COSE libraries, in one virtual environment. */
import { pythonWith } from './coap-peers.ts'
import { peerSource } from './install.ts'

export type CosePeerName = 'pycose' | 'python-cwt'

export const COSE_PEERS: Readonly<Record<CosePeerName, { readonly version: string; readonly argument: string }>> = {
  pycose: { version: '1.1.0', argument: 'pycose' },
  'python-cwt': { version: '3.3.0', argument: 'cwt' },
}

/** What to start. @throws PeerMissing */
export async function findCosePeer(name: CosePeerName): Promise<readonly string[]> {
  // pycose does not work with cbor2 6
  const python = await pythonWith('cose', ['pycose==1.1.0', 'cwt==3.3.0', 'cbor2<6'])
  return [python, peerSource('cose', 'peer.py'), COSE_PEERS[name].argument]
}
