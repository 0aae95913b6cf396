// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, IPolicy} from "../IPolicy.sol";
import {BoundPolicy} from "./Policy.sol";

/// Hashcash over a recent block hash: a request costs its client some seconds of computing. SHA-256, because every
/// client has it in native code. Each solution serves once, one client, one offer, for 256 blocks.
/// proof = abi.encode(uint64 blockNumber, uint256 nonce)
contract Puzzle is BoundPolicy {
    uint8 public difficulty;
    mapping(bytes32 solution => bool) public used;

    error BadDifficulty();
    error BadProof();
    error UnknownBlock(uint64 number);
    error NotSolved();
    error AlreadyUsed();

    /// @param difficulty_ leading zero bits of a solution, 1 to 64: 2^difficulty hashes on average
    constructor(uint8 difficulty_) {
        if (difficulty_ == 0 || difficulty_ > 64) revert BadDifficulty();
        difficulty = difficulty_;
    }

    /// @inheritdoc IPolicy
    function check(Ask calldata ask, bytes calldata proof) external payable free onlyConsumer returns (bytes4) {
        if (proof.length != 64) revert BadProof();
        (uint64 number, uint256 nonce) = abi.decode(proof, (uint64, uint256));
        bytes32 recent = blockhash(number);
        if (recent == 0) revert UnknownBlock(number);
        bytes32 solution = sha256(abi.encode(challenge(ask, recent), nonce));
        if (uint256(solution) >> (256 - difficulty) != 0) revert NotSolved();
        if (used[solution]) revert AlreadyUsed();
        used[solution] = true;
        return IPolicy.check.selector;
    }

    /// What a solution is searched for: SHA-256(challenge ‖ nonce) has to begin with `difficulty` zero bits.
    function challenge(Ask calldata ask, bytes32 recent) public view returns (bytes32) {
        return keccak256(
            abi.encode(
                block.chainid, address(this), consumer, ask.accessToken, ask.client, ask.resource, ask.offer, recent
            )
        );
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "puzzle";
    }
}
