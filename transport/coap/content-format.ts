/** Content-Formats that IoTChain uses or meets (IANA "CoAP Content-Formats"). */
export const ContentFormat = {
  textPlain: 0,
  coseEncrypt0: 16,
  coseMac0: 17,
  coseSign1: 18,
  aceCbor: 19,
  linkFormat: 40,
  xml: 41,
  octetStream: 42,
  json: 50,
  cbor: 60,
  cwt: 61,
  multipartCore: 62,
  cborSeq: 63,
  coseKey: 101,
  coseKeySet: 102,
  senmlJson: 110,
  senmlCbor: 112,
  /** application/concise-problem-details+cbor (RFC 9290 §6.3). */
  problemDetails: 257,
  /** application/ace-groupcomm+cbor (RFC 9594 §11.2). */
  aceGroupcommCbor: 261,
} as const

const NAMES: Readonly<Record<number, string>> = {
  [ContentFormat.textPlain]: 'text/plain;charset=utf-8',
  [ContentFormat.coseEncrypt0]: 'application/cose;cose-type="cose-encrypt0"',
  [ContentFormat.coseMac0]: 'application/cose;cose-type="cose-mac0"',
  [ContentFormat.coseSign1]: 'application/cose;cose-type="cose-sign1"',
  [ContentFormat.aceCbor]: 'application/ace+cbor',
  [ContentFormat.linkFormat]: 'application/link-format',
  [ContentFormat.xml]: 'application/xml',
  [ContentFormat.octetStream]: 'application/octet-stream',
  [ContentFormat.json]: 'application/json',
  [ContentFormat.cbor]: 'application/cbor',
  [ContentFormat.cwt]: 'application/cwt',
  [ContentFormat.multipartCore]: 'application/multipart-core',
  [ContentFormat.cborSeq]: 'application/cbor-seq',
  [ContentFormat.coseKey]: 'application/cose-key',
  [ContentFormat.coseKeySet]: 'application/cose-key-set',
  [ContentFormat.senmlJson]: 'application/senml+json',
  [ContentFormat.senmlCbor]: 'application/senml+cbor',
  [ContentFormat.problemDetails]: 'application/concise-problem-details+cbor',
  [ContentFormat.aceGroupcommCbor]: 'application/ace-groupcomm+cbor',
}

/** The media type of a Content-Format number (HTTP mapping, RFC 8075), undefined for one that we do not know. */
export function mediaType(contentFormat: number): string | undefined {
  return NAMES[contentFormat]
}
