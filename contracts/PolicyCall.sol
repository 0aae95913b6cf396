// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, IPolicy} from "./IPolicy.sol";

/// Calls a policy that nobody vouches for: bounded gas, 32 octets of its answer, so that an endless loop or a
/// gigantic answer costs the asker little and nobody else anything (IoTChain, section II-C: the bound on execution).
library PolicyCall {
    uint256 internal constant GAS = 200_000;

    /// @param reason the first 32 octets that the policy gave back, zero-padded: its error's selector comes first
    error PolicyRefused(address policy, bytes32 reason);
    /// Less gas was left than a policy is entitled to: send the request with a higher gas limit.
    error OutOfPolicyGas();

    /// Asks a policy with exactly `GAS`.
    function ask(address policy, uint256 value, Ask memory what, bytes memory proof) internal {
        // EIP-150 passes on 63/64 of what is left at most: a request must not fail a policy by starving it.
        // 12 000 are the call itself, with a value and a cold account.
        if (gasleft() < GAS + GAS / 63 + 12_000) revert OutOfPolicyGas();
        (bool agreed, bytes32 answer) = _call(policy, GAS, value, what, proof);
        if (!agreed) revert PolicyRefused(policy, answer);
    }

    /// Asks a policy on behalf of another one, with what is left of the gas; its refusal is passed on as it is.
    function pass(address policy, uint256 value, Ask memory what, bytes memory proof) internal {
        (bool agreed, bytes32 answer) = _call(policy, gasleft(), value, what, proof);
        if (agreed) return;
        assembly ("memory-safe") {
            mstore(0, answer)
            revert(0, 32)
        }
    }

    function _call(address policy, uint256 gasLimit, uint256 value, Ask memory what, bytes memory proof)
        private
        returns (bool agreed, bytes32 answer)
    {
        bytes memory input = abi.encodeCall(IPolicy.check, (what, proof));
        assembly ("memory-safe") {
            mstore(0, 0)
            agreed := call(gasLimit, policy, value, add(input, 32), mload(input), 0, 32)
            // an account without code answers nothing, so it agrees to nothing
            if lt(returndatasize(), 32) { agreed := 0 }
            answer := mload(0)
        }
        agreed = agreed && answer == bytes32(IPolicy.check.selector);
    }
}
