// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, IPolicy} from "../IPolicy.sol";
import {Policy} from "./Policy.sol";

/// The one function that ERC-721, ERC-20 and Unlock's locks (which count keys that have not expired) have in common.
interface IBalance {
    function balanceOf(address account) external view returns (uint256);
}

/// Agrees to clients who hold at least `minimum` of an asset. The proof is not looked at.
contract Holder is Policy {
    IBalance public asset;
    uint256 public minimum;

    error ZeroAsset();
    error NotHolder(address client);

    constructor(IBalance asset_, uint256 minimum_) {
        if (address(asset_) == address(0) || minimum_ == 0) revert ZeroAsset();
        asset = asset_;
        minimum = minimum_;
    }

    /// @inheritdoc IPolicy
    function check(Ask calldata ask, bytes calldata) external payable free returns (bytes4) {
        if (asset.balanceOf(ask.client) < minimum) revert NotHolder(ask.client);
        return IPolicy.check.selector;
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "holder";
    }
}
