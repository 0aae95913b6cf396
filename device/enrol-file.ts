/**
 * Enrolment without a screen: a file `iotchain-enroll.yaml` on the boot partition of the card, used once and deleted,
 * because the code in it is a secret until it is used.
 */
import { rmSync } from 'node:fs'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { loadConfig } from '../runtime/config.ts'
import * as z from '../runtime/zod.ts'

export const enrolFileSchema = z.strictObject({
  keyserver: z
    .string()
    .regex(/^coaps:\/\/[^/\s]+$/, 'must look like coaps://host:port')
    .describe('The key server to enrol with.'),
  code: z.string().min(26).max(64).describe('The code that iotchain-keyserver printed.'),
  uri: z.string().max(256).default('').describe('How clients reach the key server, where that differs.'),
})

export type EnrolFile = z.output<typeof enrolFileSchema>

/** @throws `config/…` */
export function readEnrolFile(path: string): EnrolFile {
  try {
    return loadConfig(enrolFileSchema, path)
  } catch (error) {
    if (!isIotchainError(error)) throw error
    const { code, message } = error
    throw new IotchainError(code, message, {
      cause: error,
      hint: 'it holds two lines: keyserver: "coaps://HOST:PORT" and code: "…", as iotchain-keyserver code printed it',
    })
  }
}

/** After the enrolment. @throws `runtime/cannot-write` when the file stays: then the code in it must be seen as spent */
export function deleteEnrolFile(path: string): void {
  try {
    rmSync(path)
  } catch (cause) {
    throw new IotchainError('runtime/cannot-write', `${path} cannot be deleted`, {
      cause,
      hint: 'the code in it is used up; delete the file by hand',
    })
  }
}
