import { describe, expect, test } from 'vitest'
import { createDriver as createHwmon } from '../../device/drivers/hwmon.ts'
import { createDriver as createIio } from '../../device/drivers/iio.ts'
import { createDriver as createW1 } from '../../device/drivers/w1.ts'
import { resourceSettings, type SettingsOf } from '../../device/resource-settings.ts'
import { environment, sysfs } from './fixtures.ts'

function settings<D extends 'w1' | 'iio' | 'hwmon'>(driver: D, more: object = {}): SettingsOf<D> {
  return resourceSettings.parse({ path: '/s/x', group: 0, driver, ...more }) as SettingsOf<D>
}

describe('w1', () => {
  const path = 'bus/w1/devices/28-0316a2795fff'

  test('reads the only thermometer, in degrees', async () => {
    const { root } = sysfs({ [`${path}/temperature`]: '21562', 'bus/w1/devices/w1_bus_master1/x': '' })
    const driver = createW1(settings('w1'), environment({ sysfsRoot: root }))
    expect(await driver.read()).toEqual([{ v: 21.562, u: 'Cel', quality: 'ok' }])
  })

  test('the power-on value is no reading, unless it is that hot', async () => {
    const { root, write } = sysfs({ [`${path}/temperature`]: '85000' })
    const driver = createW1(settings('w1'), environment({ sysfsRoot: root }))
    await expect(driver.read()).rejects.toMatchObject({ code: 'sensor/power-on' })
    write(`${path}/temperature`, '84250')
    await driver.read()
    write(`${path}/temperature`, '85000')
    expect(await driver.read()).toEqual([{ v: 85, u: 'Cel', quality: 'ok' }])
  })

  test('a vanished sensor, none, and several are told in words', async () => {
    const { root, remove, write } = sysfs({ [`${path}/temperature`]: '-125' })
    const named = createW1(settings('w1', { id: '28-0316a2795fff' }), environment({ sysfsRoot: root }))
    expect(await named.read()).toEqual([{ v: -0.125, u: 'Cel', quality: 'ok' }])
    remove(path)
    await expect(named.read()).rejects.toMatchObject({ code: 'sensor/vanished' })
    const any = createW1(settings('w1'), environment({ sysfsRoot: root }))
    await expect(any.read()).rejects.toMatchObject({
      code: 'sensor/not-found',
      hint: expect.stringContaining('w1-gpio'),
    })
    write('bus/w1/devices/28-000000000001/temperature', '1')
    write('bus/w1/devices/28-000000000002/temperature', '2')
    await expect(any.read()).rejects.toMatchObject({ code: 'sensor/ambiguous' })
  })

  test('older kernels: the checksum of w1_slave must hold', async () => {
    const good = '72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125'
    const { root, write } = sysfs({ [`${path}/w1_slave`]: good })
    const driver = createW1(settings('w1'), environment({ sysfsRoot: root }))
    expect((await driver.read())[0]?.v).toBe(23.125)
    write(`${path}/w1_slave`, good.replace('YES', 'NO'))
    await expect(driver.read()).rejects.toMatchObject({ code: 'sensor/bad-value' })
  })
})

describe('iio', () => {
  const chip = 'bus/iio/devices/iio:device1'
  const files = {
    'bus/iio/devices/iio:device0/name': 'rpi-adc',
    [`${chip}/name`]: 'bmp280',
    [`${chip}/in_temp_input`]: '25080',
    [`${chip}/in_pressure_input`]: '100.653',
  }

  test('Bosch’s example: 25.08 degrees, 100 653 pascals', async () => {
    const { root } = sysfs(files)
    const read = (channel: string) =>
      createIio(settings('iio', { name: 'bmp280', channel }), environment({ sysfsRoot: root })).read()
    expect(await read('temp')).toEqual([{ v: 25.08, u: 'Cel', quality: 'ok' }])
    expect(await read('pressure')).toEqual([{ v: 100_653, u: 'Pa', quality: 'ok' }])
  })

  test('raw, offset and scale, of the channel or shared by its kind', async () => {
    const { root } = sysfs({
      [`${chip}/name`]: 'mcp3008',
      [`${chip}/in_voltage0_raw`]: '512',
      [`${chip}/in_voltage_scale`]: '3.22265625',
      [`${chip}/in_temp_raw`]: '1000',
      [`${chip}/in_temp_offset`]: '-200',
      [`${chip}/in_temp_scale`]: '25',
    })
    const env = environment({ sysfsRoot: root })
    const voltage = createIio(settings('iio', { name: 'mcp3008', channel: 'voltage0', scale: 2 }), env)
    expect(await voltage.read()).toEqual([{ v: 3.3, u: 'V', quality: 'ok' }])
    expect(await createIio(settings('iio', { name: 'mcp3008', channel: 'temp' }), env).read()).toEqual([
      { v: 20, u: 'Cel', quality: 'ok' },
    ])
  })

  test('a chip that is not there: what is there instead', async () => {
    const { root } = sysfs(files)
    const driver = createIio(settings('iio', { name: 'bme280', channel: 'temp' }), environment({ sysfsRoot: root }))
    await expect(driver.read()).rejects.toMatchObject({
      code: 'sensor/not-found',
      message: expect.stringContaining('rpi-adc, bmp280'),
    })
  })

  test('a chip that comes back under another number is found again', async () => {
    const { root, remove, write } = sysfs(files)
    const driver = createIio(settings('iio', { name: 'bmp280', channel: 'temp' }), environment({ sysfsRoot: root }))
    await driver.read()
    remove(chip)
    await expect(driver.read()).rejects.toMatchObject({ code: 'sensor/not-found' })
    write('bus/iio/devices/iio:device7/name', 'bmp280')
    write('bus/iio/devices/iio:device7/in_temp_input', '-40000')
    expect((await driver.read())[0]?.v).toBe(-40)
  })

  test.each(['', 'nan', '12abc', '1e999'])('"%s" is no value', async (text) => {
    const { root } = sysfs({ ...files, [`${chip}/in_temp_input`]: text })
    const driver = createIio(settings('iio', { name: 'bmp280', channel: 'temp' }), environment({ sysfsRoot: root }))
    await expect(driver.read()).rejects.toMatchObject({ code: 'sensor/bad-value' })
  })
})

describe('hwmon', () => {
  const chip = 'class/hwmon/hwmon2'

  test.each([
    ['temp1', '23500', 23.5, 'Cel'],
    ['humidity1', '41234', 41.234, '%RH'],
    ['in1', '5087', 5.087, 'V'],
    ['curr1', '-120', -0.12, 'A'],
    ['power1', '2500000', 2.5, 'W'],
  ])('%s is normalised to SI', async (channel, text, v, u) => {
    const { root } = sysfs({ [`${chip}/name`]: 'chip', [`${chip}/${channel}_input`]: text })
    const driver = createHwmon(settings('hwmon', { name: 'chip', channel }), environment({ sysfsRoot: root }))
    expect(await driver.read()).toEqual([{ v, u, quality: 'ok' }])
    expect(driver.describe()).toMatchObject({ if: 'core.s', unit: u })
  })

  test('a fault that the chip reports is no reading', async () => {
    const { root } = sysfs({ [`${chip}/name`]: 'max31865', [`${chip}/temp1_input`]: '0', [`${chip}/temp1_fault`]: '1' })
    const driver = createHwmon(
      settings('hwmon', { name: 'max31865', channel: 'temp1' }),
      environment({ sysfsRoot: root }),
    )
    await expect(driver.read()).rejects.toMatchObject({ code: 'sensor/fault' })
  })
})
