/** The codecs of our contracts, made when they are first needed. */
import { accessTokenAbi, deviceRegistryAbi, ierc20MetadataAbi, iPolicyAbi } from './abi.ts'
import { Codec } from './codec.ts'

export const accessToken = new Codec(accessTokenAbi)
export const deviceRegistry = new Codec(deviceRegistryAbi)
export const policy = new Codec(iPolicyAbi)
export const erc20 = new Codec(ierc20MetadataAbi)
