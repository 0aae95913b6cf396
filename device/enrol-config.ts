/** Puts what an enrolment has told into the device's configuration, and leaves the rest of the file as it is. */
import { type Document, parseDocument } from 'yaml'
import { IotchainError } from '../protocol/errors.ts'
import { readFileIfExists, writeFileAtomic } from '../runtime/atomic-file.ts'
import type { Enrolled } from './enrol.ts'

const FRESH = `# Written by iotchain-device enroll. --print-config prints every setting with its default.
resources:
  - { path: /s/system, driver: host, group: 0, every: 60s }
`

/** @throws `config/bad-yaml`, `runtime/cannot-write` */
export function writeEnrolledConfig(file: string, keyserver: string, enrolled: Enrolled): void {
  const text = readFileIfExists(file)?.toString() ?? FRESH
  const document: Document = parseDocument(text)
  if (document.errors.length > 0) {
    throw new IotchainError(
      'config/bad-yaml',
      `${file} cannot be read: ${document.errors[0]?.message.split('\n')[0]}`,
      {
        hint: `correct it, then set keyserver: "${keyserver}", chain.id: ${enrolled.chainId}, chain.registry: "${enrolled.registry}"`,
      },
    )
  }
  document.setIn(['keyserver'], keyserver)
  document.setIn(['chain', 'id'], enrolled.chainId)
  document.setIn(['chain', 'registry'], enrolled.registry)
  writeFileAtomic(file, document.toString({ lineWidth: 0 }), { mode: 0o644 })
}
