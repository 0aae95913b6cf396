// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Token} from "../IAccessToken.sol";
import {AccessTokenBase} from "./AccessTokenBase.sol";

/// The bars of docs/contracts.md, under the rules of the hardfork in foundry.toml. The 21 000 of the
/// transaction and its calldata are added by hand: forge measures the call.
contract GasTest is AccessTokenBase {
    function transactionGas(address from, bytes memory data) internal returns (uint256 used) {
        used = 21_000;
        for (uint256 i = 0; i < data.length; ++i) {
            used += data[i] == 0 ? 4 : 16;
        }
        vm.cool(address(token));
        vm.prank(from);
        uint256 before = gasleft();
        (bool ok,) = address(token).call(data);
        used += before - gasleft();
        // the called contract of a transaction is warm from the beginning
        used -= 2_600;
        yes(ok, "done");
    }

    function grant(address client) internal pure returns (bytes memory) {
        return abi.encodeWithSignature("addToken(address,address,uint64,bytes4)", client, DEVICE, 30 days, CLAIMS);
    }

    function test_gas_of_a_grant() public {
        address client = address(uint160(uint256(keccak256("client"))));
        atMost(transactionGas(SERVER, grant(client)), 55_000, "first grant");
        vm.roll(block.number + 10);
        atMost(transactionGas(SERVER, grant(client)), 38_000, "renewed grant");
        atMost(transactionGas(SERVER, abi.encodeWithSignature("deleteToken(address,address)", client, DEVICE)), 40_000, "revocation");
    }

    function test_gas_of_reading_500_tokens() public {
        address[] memory clients = new address[](500);
        for (uint160 i = 0; i < 500; ++i) {
            clients[i] = address(uint160(uint256(keccak256(abi.encode(i)))));
        }
        vm.startPrank(SERVER);
        token.addTokens(clients, DEVICE, 30 days, CLAIMS);
        vm.stopPrank();
        vm.cool(address(token));
        uint256 before = gasleft();
        Token[] memory tokens = token.tokensOf(clients, DEVICE);
        atMost(before - gasleft(), 30_000_000, "500 tokens in one call");
        eq(tokens.length, 500);
    }
}
