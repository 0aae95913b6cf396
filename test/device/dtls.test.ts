import { describe, expect, test } from 'vitest'
import { createCa, issueServerCertificate } from '../../runtime/pki/authority.ts'
import { generateKeyPair, privateKeyPem } from '../../runtime/pki/keys.ts'
import { makeRig } from './device-rig.ts'

async function serverIdentity(root: Awaited<ReturnType<typeof createCa>>['root']) {
  const { privateKey, publicKey } = generateKeyPair()
  const { chain } = await issueServerCertificate(root, { publicKey, names: ['127.0.0.1'] })
  return { cert: chain, key: privateKeyPem(privateKey) }
}

describe('the key server by DTLS', () => {
  test('the device joins with its certificate, its proof bound to the association', async () => {
    const rig = await makeRig()
    const port = await rig.keyServer.startDtls({
      ...(await serverIdentity(rig.ca.root)),
      ca: rig.ca.issuing.certificate,
    })
    rig.keyServer.publish(1)
    rig.useDtls()
    await rig.restart({ keyserver: `coaps://127.0.0.1:${port}` })
    const client = await rig.client()
    await expect.poll(async () => (await client.get('/s/demo')).codeText, { timeout: 15_000 }).toBe('2.05')
    expect(rig.keyServer.joins).toBe(1)
  })

  test('a key server of another CA is refused, and the reason is logged', async () => {
    const rig = await makeRig()
    const other = await createCa({ name: 'other' })
    const port = await rig.keyServer.startDtls({
      ...(await serverIdentity(other.root)),
      ca: rig.ca.issuing.certificate,
    })
    rig.keyServer.publish(1)
    rig.useDtls()
    await rig.restart({ keyserver: `coaps://127.0.0.1:${port}` })
    await expect.poll(() => JSON.stringify(rig.lines), { timeout: 15_000 }).toContain('dtls/refused')
    expect(rig.keyServer.joins).toBe(0)
    expect((await (await rig.client()).get('/s/demo')).codeText).toBe('5.03')
  })
})
