// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, IPolicy} from "../IPolicy.sol";
import {PolicyCall} from "../PolicyCall.sol";
import {BoundPolicy} from "./Policy.sol";

/// A policy made of policies. Parts that record something are bound to the composite, the composite to its consumer.
abstract contract Composite is BoundPolicy {
    uint256 public constant MAX_PARTS = 8;

    address[] internal _parts;

    error BadParts();

    constructor(address[] memory parts_) {
        if (parts_.length == 0 || parts_.length > MAX_PARTS) revert BadParts();
        for (uint256 i = 0; i < parts_.length; ++i) {
            if (parts_[i] == address(0)) revert BadParts();
        }
        _parts = parts_;
    }

    function parts() external view returns (address[] memory) {
        return _parts;
    }
}

/// Agrees if every part does. proof = abi.encode(bytes[] proofs), one for each part in order; the wei sent along has
/// to be the sum of the parts' prices, and each gets its own.
contract AllOf is Composite {
    error WrongAmount(uint256 price);
    error WrongProofs();

    constructor(address[] memory parts_) Composite(parts_) {}

    /// @inheritdoc IPolicy
    function check(Ask calldata ask, bytes calldata proof) external payable onlyConsumer returns (bytes4) {
        bytes[] memory proofs = abi.decode(proof, (bytes[]));
        if (proofs.length != _parts.length) revert WrongProofs();
        uint256 spent = 0;
        for (uint256 i = 0; i < proofs.length; ++i) {
            uint256 cost = IPolicy(_parts[i]).price(ask);
            spent += cost;
            if (spent > msg.value) revert WrongAmount(spent);
            PolicyCall.pass(_parts[i], cost, ask, proofs[i]);
        }
        if (spent != msg.value) revert WrongAmount(spent);
        return IPolicy.check.selector;
    }

    /// @inheritdoc IPolicy
    function price(Ask calldata ask) external view override returns (uint256 sum) {
        for (uint256 i = 0; i < _parts.length; ++i) {
            sum += IPolicy(_parts[i]).price(ask);
        }
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "all-of";
    }
}

/// Agrees if the part that the client chose does. proof = abi.encode(uint256 part, bytes proof); the wei sent along
/// goes to that part.
contract AnyOf is Composite {
    error NoSuchPart(uint256 part);

    constructor(address[] memory parts_) Composite(parts_) {}

    /// @inheritdoc IPolicy
    function check(Ask calldata ask, bytes calldata proof) external payable onlyConsumer returns (bytes4) {
        (uint256 part, bytes memory inner) = abi.decode(proof, (uint256, bytes));
        if (part >= _parts.length) revert NoSuchPart(part);
        PolicyCall.pass(_parts[part], msg.value, ask, inner);
        return IPolicy.check.selector;
    }

    /// The lowest price of any part.
    function price(Ask calldata ask) external view override returns (uint256 lowest) {
        lowest = type(uint256).max;
        for (uint256 i = 0; i < _parts.length; ++i) {
            uint256 cost = IPolicy(_parts[i]).price(ask);
            if (cost < lowest) lowest = cost;
        }
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "any-of";
    }
}
