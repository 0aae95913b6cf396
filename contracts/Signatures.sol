// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// Checks signatures of ordinary accounts and of contract accounts, without trusting the latter.
library Signatures {
    /// What an account's own code may use to judge a signature.
    uint256 internal constant GAS_1271 = 100_000;
    bytes4 internal constant MAGIC_1271 = 0x1626ba7e;

    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    /// The EIP-712 digest under {name "IoTChain", version "1", this chain, this contract}. Computed each time: a
    /// cached one would be an immutable, and one release is to have one runtime code hash.
    function digest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 domain =
            keccak256(abi.encode(DOMAIN_TYPE, keccak256("IoTChain"), keccak256("1"), block.chainid, address(this)));
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    /// True if `signature` is `signer`'s as an ordinary account: 65 octets, low s.
    function isOf(address signer, bytes32 hash, bytes calldata signature) internal pure returns (bool) {
        (address recovered, ECDSA.RecoverError failure,) = ECDSA.tryRecoverCalldata(hash, signature);
        return failure == ECDSA.RecoverError.NoError && recovered == signer;
    }

    /// The same, or EIP-1271 if `signer` has code; an EIP-7702 account may sign either way. The call gets
    /// `GAS_1271` at most and 32 octets of its answer are read.
    function isOfAny(address signer, bytes32 hash, bytes calldata signature) internal view returns (bool) {
        if (isOf(signer, hash, signature)) return true;
        if (signer.code.length == 0) return false;
        bytes memory input = abi.encodeWithSelector(MAGIC_1271, hash, signature);
        bool ok;
        bytes32 answer;
        assembly ("memory-safe") {
            mstore(0, 0)
            ok := staticcall(GAS_1271, signer, add(input, 32), mload(input), 0, 32)
            ok := and(ok, gt(returndatasize(), 31))
            answer := mload(0)
        }
        return ok && bytes4(answer) == MAGIC_1271;
    }
}
