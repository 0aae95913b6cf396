/** /enroll: the one resource for associations made with a code; /renew: for those made with a device certificate. */
import {
  decodeEnrolmentBody,
  decodeRenewal,
  encodeEnrolmentReply,
  encodeRenewalReply,
} from '../../protocol/messages/enrolment.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import type { Resource } from '../../transport/coap/server.ts'
import type { Enrolment } from '../enrolment.ts'
import { decoded, secureOf } from './common.ts'

export function enrolResource(enrolment: Enrolment): Resource {
  return {
    pattern: '/enroll',
    bodyOctets: 8192,
    async post(request) {
      const secure = secureOf(request)
      const body = decoded(() => decodeEnrolmentBody(request.payload))
      const payload = encodeEnrolmentReply(await enrolment.enrol(secure, body))
      return { code: Code.changed, contentFormat: ContentFormat.cbor, payload, maxAge: 0 }
    },
  }
}

export function renewResource(enrolment: Enrolment): Resource {
  return {
    pattern: '/renew',
    bodyOctets: 8192,
    async post(request) {
      const secure = secureOf(request)
      const csr = decoded(() => decodeRenewal(request.payload))
      const payload = encodeRenewalReply(await enrolment.renew(secure, csr))
      return { code: Code.changed, contentFormat: ContentFormat.cbor, payload, maxAge: 0 }
    },
  }
}
