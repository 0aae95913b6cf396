import { expect, test } from 'vitest'
import { deviceSettings } from '../../device/settings.ts'

const device = deviceSettings.shape.device
const keyserver = deviceSettings.shape.keyserver

test.each([
  ['listen', 'coap://127.0.0.1:99999'],
  ['listen', 'coap://[::]:65536'],
  ['proxy', 'coap://proxy.example:70000'],
  ['proxy', 'coap://proxy.example:0'],
])('%s: %s is no port, and is not taken for another one', (name, uri) => {
  const { success, error } = device.safeParse({ [name]: uri })
  expect(success).toBe(false)
  expect(error?.issues[0]?.message).toMatch(/the port must be [01] to 65535/)
})

test('addresses with a port, without one, and at any free port', () => {
  expect(device.parse({ listen: 'coap://127.0.0.1:0' }).listen).toBe('coap://127.0.0.1:0')
  expect(device.parse({ listen: 'coap://[::1]:65535/' }).listen).toBe('coap://[::1]:65535/')
  expect(device.parse({ listen: 'coap://[2001:db8::70000]' }).listen).toBe('coap://[2001:db8::70000]')
  expect(keyserver.safeParse('coaps://keys.example:5684').success).toBe(true)
  expect(keyserver.safeParse('coaps://keys.example:99999').success).toBe(false)
})
