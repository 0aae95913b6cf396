/** The native module: how it is found and loaded. What it offers is for `dtls/` and `coap/` to say. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { IotchainError } from '../protocol/errors.ts'

/** @throws `dtls/not-built`, `dtls/unsupported` */
export function loadNative(): object {
  const file = bindingFile()
  if (file === undefined) {
    throw new IotchainError('dtls/not-built', 'the DTLS binding is not built, so coaps:// is not available', {
      hint: 'apt install gcc libc6-dev libssl-dev, then run: node tools/build-dtls.mjs',
    })
  }
  try {
    return createRequire(import.meta.url)(file) as object
  } catch (cause) {
    const message = (cause as Error).message.split('\n')[0] ?? ''
    const known = (cause as NodeJS.ErrnoException).code === 'unsupported'
    throw new IotchainError(
      'dtls/unsupported',
      known ? message : `this Node cannot load the DTLS binding: ${message}`,
      {
        cause,
        hint: 'use Node 20, 22, 24 or 26 from nodejs.org or NodeSource; after a change of machine run: node tools/build-dtls.mjs --force',
      },
    )
  }
}

/** $IOTCHAIN_DTLS_BINDING, else native/build/dtls.node in the nearest folder above this file (source or dist). */
export function bindingFile(): string | undefined {
  const given = process.env['IOTCHAIN_DTLS_BINDING']
  if (given !== undefined && given !== '') return existsSync(given) ? given : undefined
  let folder = dirname(fileURLToPath(import.meta.url))
  for (;;) {
    const file = join(folder, 'native', 'build', 'dtls.node')
    if (existsSync(file)) return file
    const above = dirname(folder)
    if (above === folder) return undefined
    folder = above
  }
}
