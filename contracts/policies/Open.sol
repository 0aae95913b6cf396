// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, IPolicy} from "../IPolicy.sol";
import {Policy} from "./Policy.sol";

/// Agrees to everybody. The proof is not looked at.
contract Open is Policy {
    /// @inheritdoc IPolicy
    function check(Ask calldata, bytes calldata) external payable free returns (bytes4) {
        return IPolicy.check.selector;
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "open";
    }
}
