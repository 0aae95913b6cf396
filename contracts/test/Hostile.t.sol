// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AccessToken} from "../AccessToken.sol";
import {IPolicy} from "../IPolicy.sol";
import {PolicyCall} from "../PolicyCall.sol";
import {AccessTokenBase} from "./AccessTokenBase.sol";
import {HostilePolicy} from "./Mocks.sol";

/// Policies that loop, return bombs, lie and call back.
contract HostileTest is AccessTokenBase {
    HostilePolicy internal hostile;

    function setUp() public override {
        super.setUp();
        hostile = new HostilePolicy();
        vm.prank(OWNER);
        token.setOffer(1, address(hostile), DEVICE, CLAIMS, 1 hours, true);
    }

    function refuse(HostilePolicy.Mood mood, uint256 mostGas) internal {
        hostile.set(mood, token);
        vm.prank(CLIENT);
        uint256 before = gasleft();
        (bool ok, bytes memory why) = address(token).call(abi.encodeCall(token.requestToken, (1, 60, "")));
        uint256 used = before - gasleft();
        yes(!ok, "refused");
        atMost(used, mostGas, "gas of a refusal");
        atMost(why.length, 68, "octets of a refusal");
        eq(bytes32(bytes4(why)), bytes32(PolicyCall.PolicyRefused.selector));
        yes(!token.isValid(CLIENT, DEVICE), "nothing granted");
    }

    function test_an_agreeing_policy_is_heard() public {
        hostile.set(HostilePolicy.Mood.Agree, token);
        vm.prank(CLIENT);
        token.requestToken(1, 60, "");
        yes(token.isValid(CLIENT, DEVICE), "granted");
    }

    function test_liars_are_refused() public {
        refuse(HostilePolicy.Mood.WrongMagic, 60_000);
        refuse(HostilePolicy.Mood.DirtyMagic, 60_000);
        refuse(HostilePolicy.Mood.Silent, 60_000);
        refuse(HostilePolicy.Mood.Short, 60_000);
    }

    function test_an_endless_loop_costs_its_limit_and_no_more() public {
        refuse(HostilePolicy.Mood.Endless, PolicyCall.GAS + 60_000);
    }

    function test_return_bombs_are_not_read() public {
        hostile.set(HostilePolicy.Mood.Bomb, token);
        vm.prank(CLIENT);
        uint256 before = gasleft();
        token.requestToken(1, 60, "");
        atMost(before - gasleft(), 160_000, "gas with a return bomb");
        vm.prank(CLIENT);
        token.deleteToken(CLIENT, DEVICE);
        refuse(HostilePolicy.Mood.BombRevert, 100_000);
    }

    function test_calling_back_is_refused() public {
        refuse(HostilePolicy.Mood.Reenter, PolicyCall.GAS + 60_000);
        refuse(HostilePolicy.Mood.ReenterFor, PolicyCall.GAS + 60_000);
    }

    function test_an_account_without_code_agrees_to_nothing() public {
        vm.prank(OWNER);
        token.setOffer(2, STRANGER, DEVICE, CLAIMS, 1 hours, true);
        vm.expectRevert(abi.encodeWithSelector(PolicyCall.PolicyRefused.selector, STRANGER, bytes32(0)));
        vm.prank(CLIENT);
        token.requestToken(2, 60, "");
    }

    /// A client must not make a policy fail by sending little gas: the request fails as a whole, with its own error.
    function test_a_starved_request_fails_as_such() public {
        hostile.set(HostilePolicy.Mood.Agree, token);
        vm.prank(CLIENT);
        (bool ok, bytes memory why) =
            address(token).call{gas: 200_000}(abi.encodeCall(token.requestToken, (1, 60, "")));
        yes(!ok, "refused");
        eq(bytes32(bytes4(why)), bytes32(PolicyCall.OutOfPolicyGas.selector));
    }

    function test_fuzz_any_gas_limit_grants_or_refuses_cleanly(uint256 limit) public {
        limit = 30_000 + (limit % 600_000);
        hostile.set(HostilePolicy.Mood.Agree, token);
        vm.prank(CLIENT);
        (bool ok,) = address(token).call{gas: limit}(abi.encodeCall(token.requestToken, (1, 60, "")));
        yes(ok == token.isValid(CLIENT, DEVICE), "all or nothing");
    }

    function test_money_goes_through_or_comes_back() public {
        vm.deal(CLIENT, 10);
        vm.prank(CLIENT);
        (bool ok, bytes memory why) =
            address(token).call{value: 5}(abi.encodeCall(token.requestToken, (0, 60, "")));
        yes(!ok, "an open policy refuses money");
        eq(
            keccak256(why),
            keccak256(
                abi.encodeWithSelector(
                    PolicyCall.PolicyRefused.selector, address(open), bytes32(IPolicy.UnexpectedValue.selector)
                )
            )
        );
        eq(CLIENT.balance, 10);
        eq(address(token).balance, 0);
    }
}
