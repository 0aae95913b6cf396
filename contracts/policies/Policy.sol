// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, IPolicy} from "../IPolicy.sol";

/// What most policies share: they cost nothing and refuse wei.
abstract contract Policy is IPolicy {
    modifier free() {
        if (msg.value != 0) revert UnexpectedValue();
        _;
    }

    /// @inheritdoc IPolicy
    function price(Ask calldata) external view virtual returns (uint256) {
        return 0;
    }
}

/// A policy that records something, or asks others that do: it serves one consumer, an AccessToken or a composite
/// policy, fixed once by its deployer. Otherwise anybody could call it with a proof seen in the pool and use it up.
abstract contract BoundPolicy is Policy {
    address public deployer;
    address public consumer;

    event Bound(address indexed consumer);

    error NotDeployer();
    error AlreadyBound(address consumer);
    error NotConsumer(address caller);
    error ZeroAddress();

    modifier onlyConsumer() {
        if (msg.sender != consumer) revert NotConsumer(msg.sender);
        _;
    }

    constructor() {
        deployer = msg.sender;
    }

    /// Fixes the one caller that is served; before that nobody is.
    function bind(address consumer_) external {
        if (msg.sender != deployer) revert NotDeployer();
        if (consumer != address(0)) revert AlreadyBound(consumer);
        if (consumer_ == address(0)) revert ZeroAddress();
        consumer = consumer_;
        emit Bound(consumer_);
    }
}
