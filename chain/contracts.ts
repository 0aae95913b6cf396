/** The codecs of our contracts. */
import { accessTokenAbi, deviceRegistryAbi, ierc20MetadataAbi, iPolicyAbi } from './abi.ts'
import { Codec } from './codec.ts'

export const accessToken = new Codec(accessTokenAbi)
export const deviceRegistry = new Codec(deviceRegistryAbi)
export const policy = new Codec(iPolicyAbi)
export const erc20 = new Codec(ierc20MetadataAbi)
/** Standard errors of tokens (ERC-6093), to say why a payment failed. */
export const erc20Errors = new Codec([
  {
    type: 'error',
    name: 'ERC20InsufficientBalance',
    inputs: [
      { name: 'sender', type: 'address' },
      { name: 'balance', type: 'uint256' },
      { name: 'needed', type: 'uint256' },
    ],
  },
  {
    type: 'error',
    name: 'ERC20InsufficientAllowance',
    inputs: [
      { name: 'spender', type: 'address' },
      { name: 'allowance', type: 'uint256' },
      { name: 'needed', type: 'uint256' },
    ],
  },
])
