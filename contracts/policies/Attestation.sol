// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, IPolicy} from "../IPolicy.sol";
import {Signatures} from "../Signatures.sol";
import {Policy} from "./Policy.sol";

/// Agrees to clients of whom a known issuer has attested a statement ("lives at this address"). On the chain stands
/// only a salted hash of the statement; who does not know the salt learns nothing from it. The attestation is bound to
/// this policy by its EIP-712 domain, and no token outlives it.
/// proof = abi.encode(address issuer, uint64 expiresAt, bytes signature)
contract Attestation is Policy {
    bytes32 public constant ATTESTATION_TYPE =
        keccak256("Attestation(address client,bytes32 statement,uint64 expiresAt)");

    address public owner;
    bytes32 public statement;
    mapping(address issuer => bool) public isIssuer;

    event IssuerSet(address indexed issuer, bool trusted);

    error NotOwner();
    error UnknownIssuer(address issuer);
    error TooShort(uint64 expiresAt);
    error BadSignature();

    /// @param statement_ keccak256(salt ‖ text), salt 32 octets
    constructor(address owner_, bytes32 statement_, address[] memory issuers) {
        owner = owner_;
        statement = statement_;
        for (uint256 i = 0; i < issuers.length; ++i) {
            isIssuer[issuers[i]] = true;
            emit IssuerSet(issuers[i], true);
        }
    }

    function setIssuer(address issuer, bool trusted) external {
        if (msg.sender != owner) revert NotOwner();
        isIssuer[issuer] = trusted;
        emit IssuerSet(issuer, trusted);
    }

    /// @inheritdoc IPolicy
    function check(Ask calldata ask, bytes calldata proof) external payable free returns (bytes4) {
        (address issuer, uint64 expiresAt) = abi.decode(proof, (address, uint64));
        if (!isIssuer[issuer]) revert UnknownIssuer(issuer);
        if (block.timestamp + ask.ttl > expiresAt) revert TooShort(expiresAt);
        bytes32 structHash = keccak256(abi.encode(ATTESTATION_TYPE, ask.client, statement, expiresAt));
        if (!Signatures.isOfAny(issuer, Signatures.digest(structHash), _signature(proof))) revert BadSignature();
        return IPolicy.check.selector;
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "attestation";
    }

    /// The third, dynamic value of the proof, in place. Strict: its offset and length have to be the canonical ones.
    function _signature(bytes calldata proof) private pure returns (bytes calldata) {
        if (proof.length < 128 || uint256(bytes32(proof[64:96])) != 96) revert BadSignature();
        uint256 length = uint256(bytes32(proof[96:128]));
        if (length > proof.length - 128) revert BadSignature();
        return proof[128:128 + length];
    }
}
