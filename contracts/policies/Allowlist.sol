// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Ask, IPolicy} from "../IPolicy.sol";
import {Policy} from "./Policy.sol";

/// Agrees to the clients whose address is a leaf of a Merkle tree; only its root is on the chain.
/// leaf = keccak256(keccak256(abi.encode(client))), pairs sorted (OpenZeppelin's standard tree).
/// proof = abi.encode(bytes32[] siblings)
contract Allowlist is Policy {
    address public owner;
    bytes32 public root;

    event RootSet(bytes32 root);

    error NotOwner();
    error NotListed(address client);

    constructor(address owner_, bytes32 root_) {
        owner = owner_;
        root = root_;
        emit RootSet(root_);
    }

    /// Replaces the list. Tokens that were granted under the old one stay until they end or are deleted.
    function setRoot(bytes32 root_) external {
        if (msg.sender != owner) revert NotOwner();
        root = root_;
        emit RootSet(root_);
    }

    /// @inheritdoc IPolicy
    function check(Ask calldata ask, bytes calldata proof) external payable free returns (bytes4) {
        bytes32[] memory siblings = abi.decode(proof, (bytes32[]));
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(ask.client))));
        if (!MerkleProof.verify(siblings, root, leaf)) revert NotListed(ask.client);
        return IPolicy.check.selector;
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "allowlist";
    }
}
