// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Ask, IPolicy} from "../IPolicy.sol";
import {BoundPolicy} from "./Policy.sol";

/// What a payment costs: a fixed part, and a part for each second that the token lives.
abstract contract Priced is BoundPolicy {
    address public payee;
    uint256 public fixedPart;
    uint256 public perSecond;

    constructor(address payee_, uint256 fixedPart_, uint256 perSecond_) {
        if (payee_ == address(0)) revert ZeroAddress();
        payee = payee_;
        fixedPart = fixedPart_;
        perSecond = perSecond_;
    }

    function amountOf(Ask calldata ask) public view returns (uint256) {
        return fixedPart + perSecond * ask.ttl;
    }
}

/// Agrees to whoever sends the exact price in wei. It is kept here until the payee takes it, so that a payee that
/// cannot be paid stops no request. The proof is not looked at.
contract EtherPayment is Priced {
    error WrongAmount(uint256 price);
    error WithdrawalFailed();

    constructor(address payee_, uint256 fixedPart_, uint256 perSecond_) Priced(payee_, fixedPart_, perSecond_) {}

    /// @inheritdoc IPolicy
    function check(Ask calldata ask, bytes calldata) external payable onlyConsumer returns (bytes4) {
        uint256 amount = amountOf(ask);
        if (msg.value != amount) revert WrongAmount(amount);
        return IPolicy.check.selector;
    }

    /// @inheritdoc IPolicy
    function price(Ask calldata ask) external view override returns (uint256) {
        return amountOf(ask);
    }

    /// Sends all that was earned to the payee; anybody may trigger it.
    function withdraw() external {
        (bool ok,) = payee.call{value: address(this).balance}("");
        if (!ok) revert WithdrawalFailed();
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "payment-ether";
    }
}

/// Agrees to clients who let this policy take the price from their ERC-20 balance (an allowance set before). The
/// client pays, also in a sponsored request, which carries its signature. The proof is not looked at.
contract TokenPayment is Priced {
    using SafeERC20 for IERC20;

    IERC20 public currency;

    constructor(IERC20 currency_, address payee_, uint256 fixedPart_, uint256 perSecond_)
        Priced(payee_, fixedPart_, perSecond_)
    {
        if (address(currency_) == address(0)) revert ZeroAddress();
        currency = currency_;
    }

    /// @inheritdoc IPolicy
    function check(Ask calldata ask, bytes calldata) external payable free onlyConsumer returns (bytes4) {
        currency.safeTransferFrom(ask.client, payee, amountOf(ask));
        return IPolicy.check.selector;
    }

    /// @inheritdoc IPolicy
    function kind() external pure returns (string memory) {
        return "payment-token";
    }
}
