// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, IPolicy} from "../IPolicy.sol";
import {BoundPolicy} from "./Policy.sol";

/// Agrees to so many requests of one client, and of all together, in each period. The proof is not looked at.
contract Quota is BoundPolicy {
    uint64 public periodSeconds;
    uint32 public perClient;
    uint32 public total;

    mapping(uint256 period => mapping(address client => uint32)) public usedBy;
    mapping(uint256 period => uint32) public usedInAll;

    error NoTime();
    error ClientExhausted(address client);
    error Exhausted();

    constructor(uint64 periodSeconds_, uint32 perClient_, uint32 total_) {
        if (periodSeconds_ == 0) revert NoTime();
        periodSeconds = periodSeconds_;
        perClient = perClient_;
        total = total_;
    }

    /// @inheritdoc IPolicy
    function check(Ask calldata ask, bytes calldata) external payable free onlyConsumer returns (bytes4) {
        uint256 period = block.timestamp / periodSeconds;
        if (usedBy[period][ask.client] >= perClient) revert ClientExhausted(ask.client);
        if (usedInAll[period] >= total) revert Exhausted();
        usedBy[period][ask.client]++;
        usedInAll[period]++;
        return IPolicy.check.selector;
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "quota";
    }
}
