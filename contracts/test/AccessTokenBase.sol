// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AccessToken} from "../AccessToken.sol";
import {Open} from "../policies/Open.sol";
import {Suite} from "./Suite.sol";

/// An owner, an authorization server, a client, a device, and an open offer number 0.
abstract contract AccessTokenBase is Suite {
    AccessToken internal token;
    Open internal open;
    address internal constant OWNER = address(0x0a);
    address internal constant SERVER = address(0x0b);
    address internal constant CLIENT = address(0x0c);
    address internal constant DEVICE = address(0x0d);
    address internal constant STRANGER = address(0x0e);
    bytes4 internal constant CLAIMS = 0x00000009;

    function setUp() public virtual {
        token = new AccessToken(OWNER, DEVICE);
        open = new Open();
        vm.startPrank(OWNER);
        token.grantRole(token.AUTHORIZATION_SERVER(), SERVER);
        token.setOffer(0, address(open), DEVICE, CLAIMS, 1 hours, true);
        vm.stopPrank();
    }

    function one(address a) internal pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = a;
    }
}
