/** What the operator of a Raspberry Pi has to set beside the configuration: lines of /boot/firmware/config.txt. */
import type { ResourceSettings } from './resource-settings.ts'
import type { DeviceSettings } from './settings.ts'

/** Overlays of Raspberry Pi OS by the kernel's name of the chip. */
const I2C_IIO = new Set(['bme280', 'bmp280', 'bmp180', 'bme680', 'htu21', 'si7020', 'tsl4531', 'veml6070', 'max30102'])
const I2C_HWMON = new Map([
  ['sht3x', 'sht3x'],
  ['lm75', 'lm75'],
  ['ds1621', 'ds1621'],
  ['ina219', 'hwmon,addr=0x40'],
])

export function adviceFor(settings: DeviceSettings): readonly string[] {
  const lines = settings.resources.flatMap((r) => configLines(r).map((line) => `config.txt: ${line}   # ${r.path}`))
  return [...new Set(lines)]
}

function configLines(resource: ResourceSettings): readonly string[] {
  switch (resource.driver) {
    case 'w1':
      return ['dtoverlay=w1-gpio,gpiopin=4']
    case 'gpio-digital':
    case 'gpio-pulse':
      return [`gpio=${resource.bcm}=pu`]
    case 'iio':
      if (resource.name === 'dht11' || resource.name === 'dht22') return ['dtoverlay=dht11,gpiopin=4']
      if (resource.name.startsWith('mcp3')) return [`dtoverlay=mcp3008:spi0-0-present`, 'dtparam=spi=on']
      return I2C_IIO.has(resource.name) ? ['dtparam=i2c_arm=on', `dtoverlay=i2c-sensor,${resource.name}`] : []
    case 'hwmon': {
      const overlay = I2C_HWMON.get(resource.name)
      return overlay === undefined ? [] : ['dtparam=i2c_arm=on', `dtoverlay=i2c-sensor,${overlay}`]
    }
    default:
      return []
  }
}
