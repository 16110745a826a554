//! `/mod/v2/leader/NAME`: leader election, which is the fair lock of that name with the candidate for its value.

use bytes::Bytes;

use super::{Code, Failed, Params, Refused, answer, form, lock};
use crate::acl::Access;
use crate::ctx::{Ctx, Verb};
use crate::reply::Reply;
use crate::route::Answer;

/// Every method of the family.
pub(crate) fn serve(ctx: Ctx) -> Answer {
    match ctx.verb {
        Verb::Put => Box::pin(async move { answer(set(ctx).await) }),
        Verb::Delete => Box::pin(async move { answer(delete(&ctx).await) }),
        _ => Box::pin(async move { answer(get(&ctx).await) }),
    }
}

async fn set(mut ctx: Ctx) -> Result<Reply, Refused> {
    let form = form(&mut ctx).await?;
    let params = Params {
        query: ctx.query(),
        form,
    };
    let candidate = candidate(&params, "Set")?;
    let name = lock::name(&ctx, "Set", Access::Write)?;
    lock::enter(&ctx, name, Some(candidate), &params).await
}

async fn delete(ctx: &Ctx) -> Result<Reply, Refused> {
    let candidate = candidate(&Params::of_query(ctx), "Delete")?;
    let name = lock::name(ctx, "Delete", Access::Write)?;
    lock::take_out(ctx, name, None, Some(candidate)).await
}

async fn get(ctx: &Ctx) -> Result<Reply, Refused> {
    let name = lock::name(ctx, "Get", Access::Read)?;
    lock::holder(ctx, &name, b"value").await
}

fn candidate(params: &Params<'_>, cause: &'static str) -> Result<Bytes, Failed> {
    let missing = || Failed::new(Code::NameIsRequired, cause);
    params.bytes("name").ok_or_else(missing)
}
