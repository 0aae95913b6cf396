/**
 * AES-CCM (RFC 3610, NIST SP 800-38C) over the AES block function of @noble/ciphers, which has no CCM of its own.
 * Used by the noble suite only. Like every AES in plain JavaScript it does not run in constant time.
 */
import { unsafe } from '@noble/ciphers/aes.js'
import { copyOf, equalBytes } from '../bytes.ts'
import { IotchainError } from '../errors.ts'

export interface AesCcm {
  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array
  /** @throws `crypto/bad-tag` */
  open(nonce: Uint8Array, aad: Uint8Array, ciphertext: Uint8Array): Uint8Array
}

/**
 * @param key 16, 24 or 32 octets
 * @param tagLength M: 4, 6, … 16 octets
 * @throws `crypto/bad-key`, and from seal and open `crypto/bad-nonce` unless the nonce has 7 to 13 octets
 */
export function aesCcm(key: Uint8Array, tagLength: number): AesCcm {
  if (![16, 24, 32].includes(key.length))
    throw new IotchainError('crypto/bad-key', 'an AES key has 16, 24 or 32 octets')
  const schedule = unsafe.expandKeyLE(copyOf(key))

  function tagOf(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array {
    const mac = new Uint8Array(16)
    mac[0] = (aad.length > 0 ? 0x40 : 0) | (((tagLength - 2) / 2) << 3) | (14 - nonce.length)
    mac.set(nonce, 1)
    let length = plaintext.length
    for (let i = 15; i > nonce.length && length > 0; i--) {
      mac[i] = length & 255
      length = Math.floor(length / 256)
    }
    unsafe.encryptBlock(schedule, mac)
    if (aad.length > 0) {
      const head = lengthOf(aad)
      const padded = new Uint8Array(Math.ceil((head.length + aad.length) / 16) * 16)
      padded.set(head)
      padded.set(aad, head.length)
      absorb(mac, padded)
    }
    absorb(mac, plaintext)
    return mac
  }

  /** CBC-MAC over `data`, padded with zeros to whole blocks. */
  function absorb(mac: Uint8Array, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += 16) {
      const end = Math.min(16, data.length - at)
      for (let i = 0; i < end; i++) mac[i] = (mac[i] as number) ^ (data[at + i] as number)
      unsafe.encryptBlock(schedule, mac)
    }
  }

  /** Counter mode: block 0 masks the tag, the blocks from 1 on the text. */
  function mask(nonce: Uint8Array, first: number, data: Uint8Array): Uint8Array {
    const out = new Uint8Array(data.length)
    for (let at = 0, count = first; at < data.length; at += 16, count++) {
      const block = new Uint8Array(16)
      block[0] = 14 - nonce.length
      block.set(nonce, 1)
      let rest = count
      for (let i = 15; i > nonce.length && rest > 0; i--) {
        block[i] = rest & 255
        rest = Math.floor(rest / 256)
      }
      unsafe.encryptBlock(schedule, block)
      const end = Math.min(16, data.length - at)
      for (let i = 0; i < end; i++) out[at + i] = (data[at + i] as number) ^ (block[i] as number)
    }
    return out
  }

  function check(nonce: Uint8Array, length: number): void {
    if (nonce.length < 7 || nonce.length > 13)
      throw new IotchainError('crypto/bad-nonce', 'a nonce of CCM has 7 to 13 octets')
    if (length >= 256 ** (15 - nonce.length))
      throw new IotchainError('crypto/too-long', 'a text too long for its nonce')
  }

  return {
    seal(nonce, aad, plaintext) {
      check(nonce, plaintext.length)
      const out = new Uint8Array(plaintext.length + tagLength)
      out.set(mask(nonce, 1, plaintext))
      out.set(mask(nonce, 0, tagOf(nonce, aad, plaintext).subarray(0, tagLength)), plaintext.length)
      return out
    },
    open(nonce, aad, ciphertext) {
      check(nonce, ciphertext.length)
      const length = ciphertext.length - tagLength
      if (length < 0) throw badTag()
      const plaintext = mask(nonce, 1, ciphertext.subarray(0, length))
      const tag = mask(nonce, 0, tagOf(nonce, aad, plaintext).subarray(0, tagLength))
      if (!equalBytes(tag, ciphertext.subarray(length))) throw badTag()
      return plaintext
    },
  }
}

/** Length of the additional data as CCM prefixes it (RFC 3610 §2.2). */
function lengthOf(aad: Uint8Array): Uint8Array {
  if (aad.length < 0xff00) return Uint8Array.of(aad.length >> 8, aad.length & 255)
  const head = new Uint8Array(6)
  head[0] = 0xff
  head[1] = 0xfe
  new DataView(head.buffer).setUint32(2, aad.length)
  return head
}

function badTag(): IotchainError {
  return new IotchainError('crypto/bad-tag', 'the ciphertext does not check')
}
