/**
 * Calls and answers of our contracts, typed from chain/abi.ts. ethers does the ABI encoding; what comes back is plain:
 * addresses in lower case, structs as objects, integers as bigint.
 */
import type {
  Abi,
  AbiParametersToPrimitiveTypes,
  AbiStateMutability,
  ExtractAbiFunction,
  ExtractAbiFunctionNames,
} from 'abitype'
import { type FunctionFragment, Interface, type InterfaceAbi, type ParamType } from 'ethers'
import { IotchainError } from '../protocol/errors.ts'
import type { Hex } from './types.ts'

export type Names<A extends Abi> = ExtractAbiFunctionNames<A, AbiStateMutability>
export type CallArgs<A extends Abi, N extends Names<A>> = AbiParametersToPrimitiveTypes<
  ExtractAbiFunction<A, N>['inputs'],
  'inputs'
>
type Outputs<A extends Abi, N extends Names<A>> = AbiParametersToPrimitiveTypes<
  ExtractAbiFunction<A, N>['outputs'],
  'outputs'
>
/** One output stands for itself, several are a tuple. */
export type Answer<A extends Abi, N extends Names<A>> = Outputs<A, N> extends readonly [infer One] ? One : Outputs<A, N>

/** An event or an error, with its arguments by name. */
export interface Decoded {
  readonly name: string
  readonly args: Readonly<Record<string, unknown>>
}

export class Codec<const A extends Abi> {
  readonly #interface: Interface

  constructor(abi: A) {
    this.#interface = new Interface(abi as unknown as InterfaceAbi)
  }

  encode<N extends Names<A>>(name: N, args: CallArgs<A, N>): Hex {
    const list = args as readonly unknown[]
    return this.#interface.encodeFunctionData(this.#function(name, list.length), list) as Hex
  }

  /** @throws `chain/bad-answer` if the octets are no answer of this function */
  decode<N extends Names<A>>(name: N, data: Hex, inputs?: number): Answer<A, N> {
    try {
      const fragment = this.#function(name, inputs)
      const result = this.#interface.decodeFunctionResult(fragment, data)
      const values = fragment.outputs.map((type, i) => plain(type, result[i]))
      return (values.length === 1 ? values[0] : values) as Answer<A, N>
    } catch (cause) {
      throw new IotchainError('chain/bad-answer', `a contract answered ${name} with octets that make no sense`, {
        hint: 'Is there another kind of contract at that address?',
        cause,
      })
    }
  }

  /** The contract's own error in the octets of a revert, if it is one of this ABI. */
  decodeError(data: Hex): Decoded | undefined {
    try {
      const found = this.#interface.parseError(data)
      return found === null ? undefined : { name: found.name, args: named(found.fragment.inputs, found.args) }
    } catch {
      return undefined
    }
  }

  /** Name of an error by its four octets alone, for a reason that was cut to 32 octets. */
  errorName(selector: string): string | undefined {
    return this.#interface.getError(selector)?.name
  }

  /** An event of this ABI, or undefined. */
  decodeLog(topics: readonly string[], data: string): Decoded | undefined {
    try {
      const found = this.#interface.parseLog({ topics, data })
      return found === null ? undefined : { name: found.name, args: named(found.fragment.inputs, found.args) }
    } catch {
      return undefined
    }
  }

  topic(event: string): Hex {
    return this.#interface.getEvent(event)?.topicHash as Hex
  }

  selector(name: Names<A>, inputs?: number): Hex {
    return this.#function(name, inputs).selector as Hex
  }

  /** Constructor arguments, to be appended to the creation code. */
  encodeDeploy(args: readonly unknown[]): Hex {
    return this.#interface.encodeDeploy(args) as Hex
  }

  #function(name: string, inputs: number | undefined): FunctionFragment {
    for (const f of this.#interface.fragments) {
      if (f.type !== 'function') continue
      const candidate = f as FunctionFragment
      if (candidate.name === name && (inputs === undefined || candidate.inputs.length === inputs)) return candidate
    }
    throw new IotchainError('chain/bad-answer', `the ABI has no ${name} with ${inputs} arguments`)
  }
}

/** ethers' values as abitype names them: structs as objects, uints up to 48 bits as numbers, addresses in lower case. */
function plain(type: ParamType, value: unknown): unknown {
  if (type.baseType === 'array') {
    const item = type.arrayChildren as ParamType
    return [...(value as unknown[])].map((v) => plain(item, v))
  }
  if (type.baseType === 'tuple') return named(type.components ?? [], value as readonly unknown[])
  if (type.type === 'address') return (value as string).toLowerCase()
  const bits = /^u?int(\d+)$/.exec(type.type)
  return bits !== null && Number(bits[1]) <= 48 ? Number(value) : value
}

function named(types: readonly ParamType[], values: readonly unknown[]): Record<string, unknown> {
  return Object.fromEntries(types.map((t, i) => [t.name === '' ? String(i) : t.name, plain(t, values[i])]))
}
